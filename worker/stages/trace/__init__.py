"""Stage *trace*: the texts of a steering token by token, and the stream along some of them."""
