"""Stage *evidence*: a few prompts token by token, and what the decoder rows of latents say."""
