import io.pyroscope.labels.v2.LabelsSet;
import io.pyroscope.labels.v2.Pyroscope;

/**
 * The work of {@link Split}, seven parts of it as one namespace and three as another. Turns are long, so that a sampling
 * of CPU time meets each many times and chance decides little, and of many lengths, so that they do not beat with it.
 * Then it goes on as {@code after} until it is killed: who has seen that has all that was before it.
 */
public final class Pushed {
    public static void main(String[] arguments) throws Exception {
        int turns = Integer.parseInt(arguments[0]);
        turn(1); // compiled from here on
        for (int i = 0; i < turns; i++) {
            turn(4 + i * 5 % 13);
        }
        while (true) {
            after();
            Thread.sleep(20);
        }
    }

    static void turn(int times) {
        Pyroscope.LabelsWrapper.run(new LabelsSet("namespace", "gold"), () -> {
            Split.sink += Split.seven(7 * times);
        });
        Pyroscope.LabelsWrapper.run(new LabelsSet("namespace", "tin"), () -> {
            Split.sink += Split.three(3 * times);
        });
    }

    static void after() {
        long until = System.nanoTime() + 20_000_000L;
        while (System.nanoTime() < until) {
            Split.sink++;
        }
    }
}
