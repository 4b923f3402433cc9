"""Real reverse proxies in front of a real server, set up by the files in `deploy/`."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext, create_default_context

import httpx2

from darkroom.api.auth import tls
from darkroom.config import AuthSettings, Settings, TlsSettings
from tests.programs import program
from tests.serving import RunningServer, free_port
from tests.waiting import PATIENCE_S, eventually

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
NAME = "pictures.example"  # in the files

# What Debian's nginx.conf has around a site, without what needs root.
NGINX_CONF = """
daemon off;
pid nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path bodies;
    proxy_temp_path proxied;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {site}
}}
"""


@dataclass(frozen=True)
class Front:
    """A proxy.

    Attributes:
        kind: `nginx` or `caddy`.
        address: of the proxy by its name, as callers see it.
        plain_port: where it speaks HTTP.
        tls_port: where it speaks TLS.
        trust: knows its certificate.
    """

    kind: str
    plain_port: int
    tls_port: int
    trust: SSLContext

    @property
    def address(self) -> str:
        return f"https://{NAME}:{self.tls_port}"

    @contextmanager
    def caller(
        self, token: str | None = None, *, at: str = "127.0.0.1", **headers: str
    ) -> Iterator[httpx2.Client]:
        """Somebody who asks the proxy by its name, from one of this machine's addresses."""
        if token is not None:
            headers["authorization"] = f"Bearer {token}"

        def name_the_proxy(request: httpx2.Request) -> None:
            request.extensions["sni_hostname"] = NAME

        with httpx2.Client(
            base_url=f"https://127.0.0.1:{self.tls_port}",
            headers={"host": f"{NAME}:{self.tls_port}", **headers},
            transport=httpx2.HTTPTransport(verify=self.trust, local_address=at),
            event_hooks={"request": [name_the_proxy]},
            timeout=60,
        ) as http:
            yield http


@contextmanager
def proxy(kind: str, server: RunningServer, folder: Path) -> Iterator[Front]:
    """A proxy in front of the server, with a certificate of its own."""
    executable = program(kind)
    there = Settings(
        data_dir=folder, tls=TlsSettings(mode="local_ca"), auth=AuthSettings(host_names=(NAME,))
    )
    certificate = tls.certificate(there)
    assert certificate is not None
    plain, secure = free_port(), free_port()
    trust = create_default_context(cafile=folder / "tls" / "ca.pem")
    front = Front(kind, plain, secure, trust)
    configure = {"nginx": _nginx, "caddy": _caddy}[kind]
    options = configure(front, certificate, server.url.removeprefix("http://"), folder)
    log = folder / f"{kind}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [executable, *options],
            cwd=folder,
            stdout=output,
            stderr=output,
            env=_environment(folder),
        )
    try:
        _wait_for(front, process, log)
        yield front
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder)}


def _wait_for(front: Front, process: subprocess.Popen[bytes], log: Path) -> None:
    with front.caller() as http:

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{front.kind} ended:\n{log.read_text()}")
            with suppress(httpx2.TransportError):
                return http.get("/healthz").status_code == 200
            return False

        eventually(answers, every_s=0.05, about=log.read_text)


def _nginx(front: Front, certificate: tls.Certificate, server: str, folder: Path) -> list[str]:
    site = (DEPLOY / "nginx.conf").read_text()
    for said, meant in (
        ("listen 80;", f"listen 127.0.0.1:{front.plain_port};"),
        ("listen [::]:80;", ""),
        ("listen 443 ssl http2;", f"listen 127.0.0.1:{front.tls_port} ssl http2;"),
        ("listen [::]:443 ssl http2;", ""),
        ("/etc/ssl/darkroom/fullchain.pem", str(certificate.certificate)),
        ("/etc/ssl/darkroom/privkey.pem", str(certificate.key)),
        ("127.0.0.1:7860", server),
    ):
        assert said in site
        site = site.replace(said, meant)
    path = folder / "nginx.conf"
    path.write_text(NGINX_CONF.format(site=site))
    subprocess.run(
        [program("nginx"), "-t", "-p", str(folder), "-c", str(path)],
        env=_environment(folder),
        check=True,
    )
    return ["-p", str(folder), "-c", str(path)]


def _caddy(front: Front, certificate: tls.Certificate, server: str, folder: Path) -> list[str]:
    site = (DEPLOY / "Caddyfile").read_text()
    ports = f"\thttp_port {front.plain_port}\n\thttps_port {front.tls_port}\n"
    own = f"\n{NAME} {{\n"
    assert own in site
    assert "127.0.0.1:7860" in site
    keys = f"\ttls {certificate.certificate} {certificate.key}\n"
    site = site.replace(own, f"{own}{keys}\tbind 127.0.0.1\n").replace("127.0.0.1:7860", server)
    path = folder / "Caddyfile"
    path.write_text(f"{{\n\tadmin off\n{ports}}}\n{site}")
    return ["run", "--config", str(path), "--adapter", "caddyfile"]
