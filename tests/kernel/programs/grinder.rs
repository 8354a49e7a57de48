// Burns CPU in a method of a generic type in a module: a name that must be demangled.
use std::io::{Read, Write};
use std::time::{Duration, Instant};

mod stones {
    pub struct Grinder<T>(pub T);
    impl Grinder<u64> {
        #[inline(never)]
        pub fn grind(&mut self) {
            for _ in 0..20_000 {
                self.0 = std::hint::black_box(self.0.wrapping_mul(3).wrapping_add(1));
            }
        }
    }
}

fn main() {
    let mut byte = [0u8];
    println!("ready");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_exact(&mut byte).unwrap();
    let mut grinder = stones::Grinder(1u64);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1000) {
        grinder.grind();
    }
    println!("{{}}");
    std::io::stdout().flush().unwrap();
    while matches!(std::io::stdin().read(&mut byte), Ok(n) if n > 0) {}
}
