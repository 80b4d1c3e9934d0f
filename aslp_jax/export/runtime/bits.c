/* Bits one after another, the lowest of each byte first. */
struct bits {
    const uint8_t *byte;
    uint32_t next;
};

static int next_bit(struct bits *bits)
{
    const uint32_t at = bits->next++;
    return bits->byte[at >> 3] >> (at & 7) & 1;
}
