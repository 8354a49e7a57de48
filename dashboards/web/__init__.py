"""``perfstream profile web``: pick a selection in the browser and look at its flame graph."""
