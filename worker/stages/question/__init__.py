"""Stage *question*: a text of one's own, token by token or as it goes on under an arm."""
