static struct cursor start_NUMBERS(const struct weights *weights)
{
    struct cursor cursor;
    cursor.kept.byte = weights->kept;
    cursor.kept.next = 0;
    cursor.inverted.byte = weights->inverted;
    cursor.inverted.next = 0;
    return cursor;
}

/* Kept weights of a unit that are drawn together. */
struct batch_NUMBERS {
    int32_t count;
    uint32_t words[BATCH]; /* first the places in the kernel as JAX draws it */
    uint32_t inverted;     /* a bit for each weight */
    const NUMBER *in[BATCH]; /* channels, or inputs of a dense layer */
    int32_t taps[BATCH];
};

/* Draws the weights of a batch and adds what they contribute. */
static void add_batch_NUMBERS(const struct layer *layer, struct batch_NUMBERS *batch)
{
    /* Numbers below one half have a highest bit of 0. */
    const uint32_t inverted = batch->inverted ^ (layer->weights.law == SIGNS ? ~0u : 0u);
    int32_t sum = 0;
    random_words(layer->weights.key, batch->count, batch->words);
    for (int32_t index = 0; index < batch->count; index++) {
        const uint32_t word = batch->words[index] >> 31;
        const int32_t negative = (int32_t)(word ^ (inverted >> index & 1));
        if (layer->dense) {
            sum += (*batch->in[index] ^ -negative) + negative;
        } else {
            add_NUMBERS(layer, batch->in[index], &layer->taps[batch->taps[index]],
                        1 - 2 * negative);
        }
    }
    if (layer->dense) {
        *sums += sum;
    }
    batch->count = 0;
    batch->inverted = 0;
}

/* Sums the window of a unit, batch by batch of kept weights. */
static void sum_unit_NUMBERS(const struct layer *layer, struct cursor *cursor,
                             const NUMBER *in, int32_t unit)
{
    const int32_t stride = layer->channels * layer->units;
    struct batch_NUMBERS batch;
    batch.count = 0;
    batch.inverted = 0;
    for (int32_t channel = 0; channel < layer->channels; channel++) {
        int32_t place = channel * layer->units + unit;
        const NUMBER *at = in;
        for (int32_t index = 0; index < layer->kernel_size;) {
            const int32_t left = left_in_byte(&cursor->kept, layer->kernel_size - index);
            const int32_t end = index + left;
            uint32_t rest = rest_of_byte(&cursor->kept);
            cursor->kept.next += (uint32_t)left;
            if (!rest) {
                index = end;
                place += left * stride;
                at += left * layer->dense;
            }
            for (; index < end; index++) {
                int32_t kept = (int32_t)(rest & 1);
                if (kept && layer->weights.inverted) {
                    const uint32_t bit = (uint32_t)next_bit(&cursor->inverted);
                    /* A weight that was not taken may have left its bit. */
                    batch.inverted &= ~((uint32_t)1 << batch.count);
                    batch.inverted |= bit << batch.count;
                }
                batch.words[batch.count] = (uint32_t)place;
                batch.in[batch.count] = at;
                batch.taps[batch.count] = index;
                /* What is multiplied with 0 need not be drawn. */
                batch.count += kept & (!layer->dense | (*at != 0));
                if (batch.count == BATCH) {
                    add_batch_NUMBERS(layer, &batch);
                }
                rest >>= 1;
                place += stride;
                at += layer->dense;
            }
        }
        in += layer->in_size;
    }
    add_batch_NUMBERS(layer, &batch);
}
