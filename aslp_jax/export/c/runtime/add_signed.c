/* Adds to the sums of a unit what a weight of 1 or -1 contributes to each of them. */
static void add_signed(const struct layer *layer, const float *channel,
                       const struct tap *tap, int negative, float *sums)
{
    for (int32_t y = tap->top; y < tap->bottom; y++) {
        const int32_t first = tap->offset + y * layer->row_step;
        float *sum = sums + y * layer->width;
        if (negative) {
            for (int32_t x = tap->left; x < tap->right; x++) {
                sum[x] -= channel[first + x * layer->step];
            }
        } else {
            for (int32_t x = tap->left; x < tap->right; x++) {
                sum[x] += channel[first + x * layer->step];
            }
        }
    }
}
