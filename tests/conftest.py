"""How every test runs: generated examples are the same each time, and a busy machine is no fault of theirs.

New examples are looked for with `python -m pytest --hypothesis-profile explore`.
"""

from hypothesis import HealthCheck, settings

settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("explore"), derandomize=True)
settings.load_profile("repeatable")
