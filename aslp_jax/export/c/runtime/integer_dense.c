/* Sums the window of a unit, weight by weight. */
static void sum_unit_NUMBERS(const struct layer *layer, struct cursor *cursor,
                             const NUMBER *in, int32_t unit)
{
    (void)unit;
    if (layer->dense) {
        const int32_t inputs = layer->channels * layer->kernel_size;
        int32_t sum = 0;
        for (int32_t index = 0; index < inputs; index++) {
            sum += *cursor->value++ * in[index];
        }
        *sums = sum;
        return;
    }
    for (int32_t channel = 0; channel < layer->channels; channel++) {
        for (int32_t index = 0; index < layer->kernel_size; index++) {
            add_NUMBERS(layer, in, &layer->taps[index], *cursor->value++);
        }
        in += layer->in_size;
    }
}
