static int bit_at(const struct bits *bits)
{
    return bits->byte[bits->next >> 3] >> (bits->next & 7) & 1;
}

static int next_bit(struct bits *bits)
{
    const int bit = bit_at(bits);
    bits->next++;
    return bit;
}

/* How many bits are left of the byte at hand, but at most `limit`. */
static int32_t left_in_byte(const struct bits *bits, int32_t limit)
{
    const int32_t left = 8 - (int32_t)(bits->next & 7);
    return left < limit ? left : limit;
}

/* Those bits, and some more where the limit is less; 0 where none of them is 1. */
static uint32_t rest_of_byte(const struct bits *bits)
{
    return (uint32_t)bits->byte[bits->next >> 3] >> (bits->next & 7);
}
