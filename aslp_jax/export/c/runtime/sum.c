/* Sums the window of a unit, channel by channel. */
static void sum_unit(const struct layer *layer, struct cursor *cursor, const float *in,
                     int32_t unit, float *sums)
{
    if (layer->dense) {
        *sums = dense_sum(layer, cursor, in, unit);
        return;
    }
    for (int32_t channel = 0; channel < layer->channels; channel++) {
        add_channel(layer, cursor, in, channel, unit, sums);
        in += layer->in_size;
    }
}
