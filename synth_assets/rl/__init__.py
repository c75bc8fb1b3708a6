"""The suites as Gymnasium environments, `synth/<suite>-v0`; importing this package registers them.

It needs the extra `rl` (gymnasium). Nothing else in the project imports it.
"""

from synth_assets.rl.registration import register_suites

register_suites()
