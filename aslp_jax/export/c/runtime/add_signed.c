static uint32_t bits_of(float number)
{
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* A number, negated where the highest bit of a word is 1. This is no branch, since a
   processor guesses half of them wrong. */
static float negated(float number, uint32_t word)
{
    return float_of(bits_of(number) ^ (word & 0x80000000u));
}

/* Adds to the sums of a unit what a weight of 1 or -1 contributes to each of them. */
static void add_signed(const struct layer *layer, const float *channel,
                       const struct tap *tap, uint32_t negative, float *sums)
{
    const int32_t step = layer->step, row_step = layer->row_step, left = tap->left;
    for (int32_t y = tap->top; y < tap->bottom; y++) {
        const float *first = channel + (tap->offset + y * row_step + left * step);
        float *sum = sums + y * layer->width;
        if (negative) {
            for (int32_t x = left; x < tap->right; x++) {
                sum[x] -= first[(x - left) * step];
            }
        } else {
            for (int32_t x = left; x < tap->right; x++) {
                sum[x] += first[(x - left) * step];
            }
        }
    }
}
