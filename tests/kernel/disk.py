"""Small file systems and block devices of a test's own, and filling them up."""

import contextlib
import subprocess
import threading


@contextlib.contextmanager
def mounted(directory, size):
    """Make a file system of ``size`` (``2m``) at a directory, which is made; yields the directory."""
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


@contextlib.contextmanager
def loop_device(directory, size):
    """Make a block device over a file of so many bytes: a real one that nobody else writes to; yields its path."""
    image = directory / "image"
    image.write_bytes(bytes(size))
    command = ["losetup", "--find", "--show", "--direct-io=on", image]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextlib.contextmanager
def kept_full(disk):
    """Take all the room, and what becomes free meanwhile; the first time it is all taken before this begins."""
    filler, done, filled = disk / "filler", threading.Event(), threading.Event()

    def fill():
        with filler.open("wb", buffering=0) as file:
            while not done.wait(0.02):
                for size in (1 << 20, 4096, 1):
                    with contextlib.suppress(OSError):
                        while file.write(bytes(size)) == size:
                            pass
                filled.set()

    thread = threading.Thread(target=fill)
    thread.start()
    filled.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()
        filler.unlink()
