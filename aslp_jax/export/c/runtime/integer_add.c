/* Adds to some neighbouring sums what one weight contributes to each of them. */
static void add_row_NUMBERS(int32_t count, const NUMBER *RESTRICT in, int32_t step,
                            int32_t weight, int32_t *RESTRICT sum)
{
#if SIGNS_ALONE
    if (step == 1 && weight > 0) {
        for (int32_t index = 0; index < count; index++) {
            sum[index] += in[index];
        }
        return;
    }
    if (step == 1) {
        for (int32_t index = 0; index < count; index++) {
            sum[index] -= in[index];
        }
        return;
    }
#endif
    for (int32_t index = 0; index < count; index++) {
        sum[index] += weight * in[index * step];
    }
}

/* Adds to the sums of a unit what one weight contributes to each of them. */
static void add_NUMBERS(const struct layer *layer, const NUMBER *channel,
                        const struct tap *tap, int32_t weight)
{
    const int32_t step = layer->step, row_step = layer->row_step;
    const int32_t width = layer->width, left = tap->left;
    int32_t count = tap->right - left, rows = tap->bottom - tap->top;
    if (rows > 0 && count == width && row_step == count * step) {
        /* Whole rows are one long row. */
        count *= rows;
        rows = 1;
    }
    for (int32_t y = tap->top; y < tap->top + rows; y++) {
        add_row_NUMBERS(count, channel + (tap->offset + y * row_step + left * step),
                        step, weight, sums + (y * width + left));
    }
}
