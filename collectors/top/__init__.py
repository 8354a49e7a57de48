"""Who does most in each interval, one file each: what ``gadget top`` shows; agents publish it on demand."""
