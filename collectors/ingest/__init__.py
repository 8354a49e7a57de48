"""The push endpoint: profiles that programs send by themselves, with the clients that people have."""
