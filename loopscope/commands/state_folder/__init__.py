"""The state folder: its copy, what of it can go, whether it is whole, and how it is made again."""
