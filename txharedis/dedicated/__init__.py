"""Links for one caller each: what blocks, what belongs together, what never ends."""
