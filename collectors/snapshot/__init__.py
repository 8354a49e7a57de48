"""What there is at this moment, one file each: what ``gadget snapshot`` shows, agents publish it on demand."""
