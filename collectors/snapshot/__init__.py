"""What there is at this moment, one file for each: what ``gadget snapshot`` shows. On demand only."""
