// As split.c.
use std::hint::black_box;
use std::io::{Read, Write};

#[inline(always)]
fn spin(parts: u64) {
    let mut x = black_box(1u64);
    for _ in 0..parts * 2_000_000 {
        x = black_box(x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407));
    }
    black_box(x);
}

#[inline(never)]
fn seven_parts() {
    spin(7)
}

#[inline(never)]
fn three_parts() {
    spin(3)
}

fn main() {
    let rounds: u32 = std::env::args().nth(1).unwrap().parse().unwrap();
    let mut byte = [0u8];
    println!("ready");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_exact(&mut byte).unwrap();
    for _ in 0..rounds {
        seven_parts();
        three_parts();
    }
    println!("{{}}");
    while matches!(std::io::stdin().read(&mut byte), Ok(n) if n > 0) {}
}
