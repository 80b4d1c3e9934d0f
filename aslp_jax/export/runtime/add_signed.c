/* Adds to the sums of a unit what a weight of 1 or -1 contributes to each of them. */
static void add_signed(const struct layer *layer, const float *in, int32_t channel,
                       int32_t row, int32_t column, int negative, float *sums)
{
    const int32_t above = row - layer->padding, left = column - layer->padding;
    const struct range rows =
        inside(layer->height, layer->in_height, above, layer->stride);
    const struct range columns =
        inside(layer->width, layer->in_width, left, layer->stride);
    for (int32_t y = rows.from; y < rows.to; y++) {
        const int32_t first =
            (channel * layer->in_height + y * layer->stride + above) * layer->in_width +
            left;
        float *sum = sums + y * layer->width;
        if (negative) {
            for (int32_t x = columns.from; x < columns.to; x++) {
                sum[x] -= in[first + x * layer->stride];
            }
        } else {
            for (int32_t x = columns.from; x < columns.to; x++) {
                sum[x] += in[first + x * layer->stride];
            }
        }
    }
}
