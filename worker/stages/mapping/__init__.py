"""Stage *mapping*: coarse and fine latents compared, and the gate. No model is loaded here."""
