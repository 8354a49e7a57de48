"""Who does most of something in each interval, one file for each: what ``gadget top`` shows. On demand only."""
