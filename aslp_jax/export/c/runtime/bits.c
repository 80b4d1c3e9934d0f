/* Bits one after another, the lowest of each byte first. */
struct bits {
    const uint8_t *byte;
    uint32_t next;
};

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
