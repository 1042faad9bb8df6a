"""Jobs: which of them run or wait, who does them, and what holds them back or ends them."""
