/* A function of up to three numbers at each index, in loops from the outermost to the
   innermost. A step of a loop moves the three operands and the result. */
struct map {
    enum function function;
    int32_t loops;
    int32_t sizes[LOOPS];
    int32_t steps[LOOPS][4];
#if INTEGERS
    uint8_t kinds[4];
    struct requantization requantization;
#endif
};

/* Applies the function in the innermost loop. */
static void apply(const struct map *map, const int32_t *at, const NUMBERS *const in[3],
                  NUMBERS *out);

static void map(const struct map *map, const NUMBERS *first, const NUMBERS *second,
                const NUMBERS *third, NUMBERS *out)
{
    const NUMBERS *const in[3] = {first, second, third};
    const int32_t inner = map->loops - 1;
    int32_t counts[LOOPS] = {0};
    int32_t at[4] = {0};
    int32_t loop;
    do {
        apply(map, at, in, out);
        for (loop = inner - 1; loop >= 0; loop--) {
            const int ends = ++counts[loop] == map->sizes[loop];
            const int32_t count = ends ? 1 - map->sizes[loop] : 1;
            for (int32_t index = 0; index < 4; index++) {
                at[index] += count * map->steps[loop][index];
            }
            if (!ends) {
                break;
            }
            counts[loop] = 0;
        }
    } while (loop >= 0);
}
