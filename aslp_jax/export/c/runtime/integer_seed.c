/* Draws weights and returns the sum of the numbers that they multiply. */
static int32_t signed_sum_NUMBERS(const struct weights *weights, int32_t count,
                                  uint32_t *words, const int16_t *numbers)
{
    const int32_t inverted = is_inverted(weights);
    int32_t sum = 0;
    random_words(weights->key, count, words);
    for (int32_t index = 0; index < count; index++) {
        const int32_t negative = (int32_t)(words[index] >> 31) ^ inverted;
        sum += (numbers[index] ^ -negative) + negative;
    }
    return sum;
}

/* Sums the window of a unit that covers the whole input, batch by batch of weights. */
static int32_t dense_sum_NUMBERS(const struct layer *layer, struct cursor *cursor,
                                 const NUMBER *in, int32_t unit)
{
    const struct weights *weights = &layer->weights;
    const uint32_t stride = (uint32_t)(layer->channels * layer->units);
    uint32_t words[BATCH + 12] = {0}; /* up to seven more, and the lanes */
    int16_t numbers[BATCH + 8];
    int32_t sum = 0, count = 0;
    for (int32_t channel = 0; channel < layer->channels; channel++) {
        uint32_t place = (uint32_t)(channel * layer->units + unit);
        for (int32_t index = 0; index < layer->kernel_size;) {
            const int32_t begin = (int32_t)(cursor->kept.next & 7);
            const int32_t ahead = layer->kernel_size - index;
            const int32_t left = ahead < 8 - begin ? ahead : 8 - begin;
            const int32_t kept = cursor->kept.byte[cursor->kept.next >> 3] >> begin;
            for (int32_t bit = 0; kept && bit < left; bit++) {
                int32_t number = in[bit];
                if (weights->inverted && kept >> bit & 1) {
                    number = next_bit(&cursor->inverted) ? -number : number;
                }
                words[count] = place + (uint32_t)bit * stride;
                numbers[count] = (int16_t)number;
                /* What is multiplied with 0 need not be drawn. */
                count += kept >> bit & (number != 0);
            }
            cursor->kept.next += (uint32_t)left;
            place += (uint32_t)left * stride;
            index += left;
            in += left;
            if (count >= BATCH) {
                sum += signed_sum_NUMBERS(weights, count, words, numbers);
                count = 0;
            }
        }
    }
    return sum + signed_sum_NUMBERS(weights, count, words, numbers);
}

/* Weights of a unit that are drawn together. */
struct batch_NUMBERS {
    int32_t count;
    uint32_t words[BATCH];     /* first the places in the kernel as JAX draws it */
    const NUMBER *in[BATCH];   /* channels that they meet */
    const struct tap *taps[BATCH];
    int8_t signs[BATCH];       /* -1 for those that are inverted */
};

/* Draws the weights of a batch and adds what they contribute. */
static void add_batch_NUMBERS(const struct layer *layer, struct batch_NUMBERS *batch)
{
    const int32_t inverted = is_inverted(&layer->weights);
    random_words(layer->weights.key, batch->count, batch->words);
    for (int32_t index = 0; index < batch->count; index++) {
        const int32_t negative = (int32_t)(batch->words[index] >> 31) ^ inverted;
        const int32_t weight = negative ? -batch->signs[index] : batch->signs[index];
        add_NUMBERS(layer, batch->in[index], batch->taps[index], weight);
    }
    batch->count = 0;
}

/* Sums the window of a unit, batch by batch of kept weights. */
static void sum_unit_NUMBERS(const struct layer *layer, struct cursor *cursor,
                             const NUMBER *in, int32_t unit)
{
    const int32_t stride = layer->channels * layer->units;
    struct batch_NUMBERS batch;
    if (layer->dense) {
        *sums = dense_sum_NUMBERS(layer, cursor, in, unit);
        return;
    }
    batch.count = 0;
    for (int32_t channel = 0; channel < layer->channels; channel++) {
        const int32_t first = channel * layer->units + unit;
        for (int32_t index = 0; index < layer->kernel_size; index++) {
            if (!next_bit(&cursor->kept)) {
                continue;
            }
            const int inverted = layer->weights.inverted && next_bit(&cursor->inverted);
            batch.words[batch.count] = (uint32_t)(first + index * stride);
            batch.in[batch.count] = in;
            batch.taps[batch.count] = &layer->taps[index];
            batch.signs[batch.count] = inverted ? -1 : 1;
            if (++batch.count == BATCH) {
                add_batch_NUMBERS(layer, &batch);
            }
        }
        in += layer->in_size;
    }
    add_batch_NUMBERS(layer, &batch);
}
