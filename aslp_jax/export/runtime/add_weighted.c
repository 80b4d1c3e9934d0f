/* Adds to the sums of a unit what one weight contributes to each of them. */
static void add_weighted(const struct layer *layer, const float *in, int32_t channel,
                         int32_t row, int32_t column, float weight, float *sums)
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
        for (int32_t x = columns.from; x < columns.to; x++) {
            sum[x] += weight * in[first + x * layer->stride];
        }
    }
}
