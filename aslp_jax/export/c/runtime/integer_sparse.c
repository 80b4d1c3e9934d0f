/* Sums the window of a unit, kept weight by kept weight. */
static void sum_unit_NUMBERS(const struct layer *layer, struct cursor *cursor,
                             const NUMBER *in, int32_t unit)
{
    const int32_t inputs = layer->channels * layer->kernel_size;
    (void)unit;
    while (cursor->ahead < inputs) {
        const int32_t weight = *cursor->value++;
        if (layer->dense) {
            *sums += weight * in[cursor->ahead];
        } else {
            const int32_t channel = cursor->ahead / layer->kernel_size;
            const int32_t index = cursor->ahead - channel * layer->kernel_size;
            add_NUMBERS(layer, in + channel * layer->in_size, &layer->taps[index],
                        weight);
        }
        find_next(cursor);
    }
    cursor->ahead -= inputs;
}
