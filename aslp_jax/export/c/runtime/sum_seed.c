/* Kept weights of a unit that are drawn together. */
struct batch {
    uint32_t words[BATCH]; /* first the places in the kernel as JAX draws it */
    uint32_t items[BATCH]; /* of a dense layer the bits of an input, otherwise the index
                              of a weight; the highest bit turns the sign */
};

/* Draws the weights of a batch and adds what they contribute. */
static void add_batch(const struct layer *layer, struct batch *batch, int32_t count,
                      const float *in, float *sums)
{
    const uint32_t *words = batch->words;
    uint32_t *items = batch->items;
    int32_t index = 0;
    random_words(layer->weights.key, count, batch->words);
    if (!layer->dense) {
        for (; index < count; index++) {
            const int32_t input = (int32_t)(items[index] & 0x7FFFFFFFu);
            const int32_t channel = input / layer->kernel_size;
            const struct tap *tap = &layer->taps[input - channel * layer->kernel_size];
            const float *plane = in + channel * layer->in_size;
#if NORMAL_WEIGHTS
            if (layer->weights.law == NORMAL) {
                const float weight = negated(normal(words[index]), items[index]);
                add_weighted(layer, plane, tap, weight, sums);
                continue;
            }
#endif
            add_signed(layer, plane, tap, (words[index] ^ items[index]) >> 31, sums);
        }
        return;
    }
#if NORMAL_WEIGHTS
    if (layer->weights.law == NORMAL) {
        for (; index < count; index++) {
            sums[0] += normal(words[index]) * float_of(items[index]);
        }
        return;
    }
#endif
    while (count & 3) {
        items[count++] = 0;
    }
    /* Four sums, so that none waits for the one before. */
    for (; index < count; index += 4) {
        for (int32_t lane = index; lane < index + 4; lane++) {
            sums[lane & 3] += negated(float_of(items[lane]), words[lane]);
        }
    }
}

/* Sums the window of a unit, batch by batch of kept weights. */
static void sum_unit(const struct layer *layer, struct cursor *cursor, const float *in,
                     int32_t unit, float *sums)
{
    const struct weights *weights = &layer->weights;
    const uint32_t turned = (uint32_t)is_inverted(weights) << 31;
    const int32_t stride = layer->channels * layer->units;
    struct batch batch = {{0}, {0}};
    float four[4] = {0, 0, 0, 0};
    float *to = layer->dense ? four : sums;
    int32_t input = 0, size = 0;
    for (int32_t channel = 0; channel < layer->channels; channel++) {
        const int32_t place = channel * layer->units + unit;
        for (int32_t first = 0; first < layer->kernel_size; first += SPAN) {
            uint8_t list[SPAN + 4];
            const int32_t left = layer->kernel_size - first;
            const int32_t count = find_bits(&cursor->kept, left, list);
            for (int32_t index = 0; index < count; index++) {
                const int32_t at = first + list[index];
                uint32_t item = (uint32_t)(input + at);
                if (layer->dense) {
                    item = bits_of(in[item]);
                }
                batch.words[size] = (uint32_t)(place + at * stride);
                batch.items[size] = item ^ turned;
                if (weights->inverted) {
                    batch.items[size] ^= next_bits(&cursor->inverted, 1) << 31;
                }
                /* What is multiplied with 0 need not be drawn. */
                size += !layer->dense || item << 1 != 0;
                if (size == BATCH) {
                    add_batch(layer, &batch, BATCH, in, to);
                    size = 0;
                }
            }
        }
        input += layer->kernel_size;
    }
    add_batch(layer, &batch, size, in, to);
    if (layer->dense) {
        *sums = four[0] + four[1] + (four[2] + four[3]);
    }
}
