/* How each program of known work is told what to do: it says "ready", works when a byte comes, and lives until its
 * standard input ends, so that it can be looked at. */
struct verb { const char *name; void (*run)(void); };

static int run_verb(const struct verb *verbs, unsigned many, int count, char **words)
{
    char line[16];
    if (count < 2 || !strcmp(words[1], "nothing"))
        return 0;
    arguments = words + 2;
    for (unsigned i = 0; i < many; i++) {
        if (strcmp(verbs[i].name, words[1]))
            continue;
        printf("ready\n");
        fflush(stdout);
        if (read(0, line, 1) != 1)
            return 2;
        verbs[i].run();
        fflush(stdout);
        while (read(0, line, sizeof(line)) > 0)
            ;
        return 0;
    }
    return 3;
}
