/** Two threads of known work: `seven` and `three` do 7 and 3 parts of one loop; allocations, a lock and a park beside it. */
public final class Split {
    static volatile long sink;
    static final Object LOCK = new Object();
    static volatile Object kept;
    static volatile boolean done;
    /** However little of a CPU it gets: so much is enough to sample. */
    static final int LEAST_ROUNDS = 100;

    public static void main(String[] arguments) throws Exception {
        long until = System.nanoTime() + (long) (Double.parseDouble(arguments[0]) * 1e9);
        Thread contender = new Thread(() -> {
            while (!done) {
                contended();
            }
        }, "contender");
        contender.start();
        for (int rounds = 0; System.nanoTime() < until || rounds < LEAST_ROUNDS; rounds++) {
            sink += seven(7);
            sink += three(3);
            allocated();
            synchronized (LOCK) {
                sink++;
            }
        }
        done = true;
        contender.join();
    }

    static long seven(int parts) {
        long sum = 1;
        for (int i = 0; i < parts * 2_000_000; i++) {
            sum = sum * 31 + (sum >>> 7) + i;
        }
        return sum;
    }

    static long three(int parts) {
        long sum = 1;
        for (int i = 0; i < parts * 2_000_000; i++) {
            sum = sum * 31 + (sum >>> 7) + i;
        }
        return sum;
    }

    static void allocated() {
        for (int i = 0; i < 64; i++) {
            kept = new byte[100_000];
        }
    }

    static void contended() {
        synchronized (LOCK) {
            long until = System.nanoTime() + 20_000_000L;
            while (System.nanoTime() < until) {
                java.util.concurrent.locks.LockSupport.parkNanos(15_000_000L);
            }
        }
        Thread.yield();
    }
}
