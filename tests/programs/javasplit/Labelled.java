import io.pyroscope.labels.v2.LabelsSet;
import io.pyroscope.labels.v2.Pyroscope;

/** The work of {@link Split} under Pyroscope's labels: tier=gold does seven parts, tier=tin three and the allocations. */
public final class Labelled {
    public static void main(String[] arguments) {
        long until = System.nanoTime() + (long) (Double.parseDouble(arguments[0]) * 1e9);
        while (System.nanoTime() < until) {
            Pyroscope.LabelsWrapper.run(new LabelsSet("tier", "gold"), () -> {
                Split.sink += Split.seven(7);
            });
            Pyroscope.LabelsWrapper.run(new LabelsSet("tier", "tin"), () -> {
                Split.sink += Split.three(3);
                Split.allocated();
            });
        }
    }
}
