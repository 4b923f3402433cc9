"""What a worker does not import, in processes of their own: here, stock diffusers needs it."""

import subprocess
import sys

import pytest

LEFT_OUT = """
from darkroom.engine import unneeded
unneeded.leave_out()
unneeded.leave_out()
"""


def python(program: str) -> None:
    subprocess.run([sys.executable, "-c", LEFT_OUT + program], check=True)


def test_what_is_left_out_is_imported_when_something_is_read_from_it() -> None:
    python("""
import sys
import scipy.stats
from importlib.util import find_spec
from scipy import integrate
from transformers.utils import import_utils
assert find_spec("peft") is None
assert not import_utils.is_scipy_available()
assert "scipy.special" not in sys.modules

assert 0.2340 < scipy.stats.beta.ppf(0.3, 0.6, 0.6) < 0.2341
assert abs(integrate.quad(lambda x: x, 0, 1)[0] - 0.5) < 1e-9
assert sys.modules["scipy.stats"].beta is scipy.stats.beta
""")


def test_a_module_of_a_package_that_is_left_out_is_imported_alone() -> None:
    python("""
from scipy.integrate import _quadrature
import scipy.integrate
assert scipy.integrate.simpson is _quadrature.simpson
""")


@pytest.mark.slow
def test_a_worker_imports_neither() -> None:
    python("""
import sys
from darkroom.ops import worker_process
from diffusers import EulerDiscreteScheduler
assert not {"scipy.optimize", "scipy.special"} & set(sys.modules)
assert not any(name.startswith("peft.") for name in sys.modules)

scheduler = EulerDiscreteScheduler(use_beta_sigmas=True)
scheduler.set_timesteps(5)
assert scheduler.sigmas.diff().max() < 0
""")
