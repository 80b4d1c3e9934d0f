/* Sums the window of a unit, weight by weight. */
static void sum_unit(const struct layer *layer, struct cursor *cursor, const float *in,
                     int32_t unit, float *sums)
{
    if (layer->dense) {
        *sums = dense_sum(layer, cursor, in, unit);
        return;
    }
    for (int32_t channel = 0; channel < layer->channels; channel++) {
        for (int32_t index = 0; index < layer->kernel_size; index++) {
            add_next(layer, cursor, in, channel, index, unit, sums);
        }
        in += layer->in_size;
    }
}
