static struct cursor start(const struct weights *weights)
{
    struct cursor cursor;
    cursor.kept.byte = weights->kept;
    cursor.kept.next = 0;
    cursor.inverted.byte = weights->inverted;
    cursor.inverted.next = 0;
    return cursor;
}

/* Whether the next weight is kept, and if so, whether it is inverted. */
static int next_kept(const struct weights *weights, struct cursor *cursor, int *inverted)
{
    if (!next_bit(&cursor->kept)) {
        return 0;
    }
    *inverted = weights->inverted && next_bit(&cursor->inverted);
    return 1;
}

/* The random word of a weight, by its place in the kernel as JAX draws it. */
static uint32_t word_of(const struct layer *layer, int32_t channel, int32_t index,
                        int32_t unit)
{
    const int32_t input = index * layer->channels + channel;
    return random_word(layer->weights.key, (uint32_t)(input * layer->units + unit));
}

/* Numbers below one half have a highest bit of 0. */
static int is_negative(enum law law, uint32_t word)
{
    return law == SIGNS ? !(word >> 31) : (int)(word >> 31);
}

static float dense_sum(const struct layer *layer, struct cursor *cursor,
                       const float *in, int32_t unit)
{
    const struct weights *weights = &layer->weights;
    float sum = 0;
    for (int32_t channel = 0; channel < layer->channels; channel++) {
        for (int32_t index = 0; index < layer->kernel_size; index++) {
            const float value = *in++;
            int inverted = 0;
            /* What is multiplied with 0 need not be drawn. */
            if (!next_kept(weights, cursor, &inverted) || value == 0) {
                continue;
            }
            const uint32_t word = word_of(layer, channel, index, unit);
#if NORMAL_WEIGHTS
            if (weights->law == NORMAL) {
                const float product = normal(word) * value;
                sum += inverted ? -product : product;
                continue;
            }
#endif
            sum += is_negative(weights->law, word) ^ inverted ? -value : value;
        }
    }
    return sum;
}

static void add_next(const struct layer *layer, struct cursor *cursor, const float *in,
                     int32_t channel, int32_t index, int32_t unit, float *sums)
{
    const struct weights *weights = &layer->weights;
    const struct tap *tap = &layer->taps[index];
    int inverted = 0;
    if (!next_kept(weights, cursor, &inverted)) {
        return;
    }
    const uint32_t word = word_of(layer, channel, index, unit);
#if NORMAL_WEIGHTS
    if (weights->law == NORMAL) {
        const float weight = normal(word);
        add_weighted(layer, in, tap, inverted ? -weight : weight, sums);
        return;
    }
#endif
    add_signed(layer, in, tap, is_negative(weights->law, word) ^ inverted, sums);
}
