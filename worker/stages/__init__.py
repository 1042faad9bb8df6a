"""The stages: each module's ``run(payload, context, out)`` fills the artifact folder ``out``.

What ``run`` returns is the manifest's ``metrics``. The bytes under ``out`` depend on the payload
alone, also after a resume.
"""
