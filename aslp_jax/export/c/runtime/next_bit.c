static int next_bit(struct bits *bits)
{
    const int bit = bits->byte[bits->next >> 3] >> (bits->next & 7) & 1;
    bits->next++;
    return bit;
}
