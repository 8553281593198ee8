"""Training and export of the learned models; the only place that needs torch.

Nothing but the command line (``agent/cli/train*.py``) imports this package, so the daemon runs without torch. The
shared parts are ``loop`` (one seeded training loop), ``export`` (ONNX with a parity check) and ``card`` (model card);
each family adds a module with its network and its recipe, drawn from ``simulators.specimen``.
"""
