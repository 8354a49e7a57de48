// As split.c. Warmed up before it is ready, so that what is measured is compiled code.
public class Split {
    static long sink;
    static int unit = 20000;

    static void sevenParts() {
        long x = sink;
        for (int i = 0; i < 7 * unit; i++)
            x = x * 6364136223846793005L + 1442695040888963407L;
        sink = x;
    }

    static void threeParts() {
        long x = sink;
        for (int i = 0; i < 3 * unit; i++)
            x = x * 6364136223846793005L + 1442695040888963407L;
        sink = x;
    }

    static void work(int rounds) {
        for (int i = 0; i < rounds; i++) {
            sevenParts();
            threeParts();
        }
    }

    public static void main(String[] args) throws Exception {
        for (int i = 0; i < 40; i++)
            work(50);
        unit = 2000000;
        System.out.println("ready");
        System.in.read();
        work(Integer.parseInt(args[0]));
        System.out.println("{}");
        while (System.in.read() >= 0) {
        }
    }
}
