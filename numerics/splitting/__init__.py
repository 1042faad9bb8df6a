"""How latents of one resolution become latents of the next: edges, fates, and what chance makes."""
