"""Stage *ablation*: target prompts with latents taken out of the stream, beside matched latents."""
