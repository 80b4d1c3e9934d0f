/* Sums the window of a unit, kept weight by kept weight. */
static void sum_unit(const struct layer *layer, struct cursor *cursor, const float *in,
                     int32_t unit, float *sums)
{
    const int32_t inputs = layer->channels * layer->kernel_size;
    (void)unit;
    if (layer->dense) {
        float sum = 0;
        while (cursor->ahead < inputs) {
            sum += *cursor->value++ * in[cursor->ahead];
            find_next(cursor);
        }
        *sums = sum;
    } else {
        const int32_t size = layer->in_size;
        while (cursor->ahead < inputs) {
            const int32_t channel = cursor->ahead / layer->kernel_size;
            const int32_t index = cursor->ahead - channel * layer->kernel_size;
            add_weighted(layer, in + channel * size, &layer->taps[index],
                         *cursor->value++, sums);
            find_next(cursor);
        }
    }
    cursor->ahead -= inputs;
}
