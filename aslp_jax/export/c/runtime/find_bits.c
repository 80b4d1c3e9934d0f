enum { WINDOW = 24, SPAN = 4 * WINDOW };

/* The next bits, at most a WINDOW of them; the first is the lowest. */
static uint32_t next_bits(struct bits *bits, int32_t count)
{
    const uint8_t *byte = bits->byte + (bits->next >> 3);
    const uint32_t word = (uint32_t)byte[0] | (uint32_t)byte[1] << 8 |
                          (uint32_t)byte[2] << 16 | (uint32_t)byte[3] << 24;
    const uint32_t found = word >> (bits->next & 7);
    bits->next += (uint32_t)count;
    return found & ((1u << count) - 1);
}

/* Lists where the next bits, at most `limit` and a SPAN of them, are 1, and returns how
   many that are. Up to four bytes behind the list change. */
static int32_t find_bits(struct bits *bits, int32_t limit, uint8_t list[SPAN + 4])
{
    /* Where four bits are 1, a byte for each, the first in the lowest one. No branch
       depends on a single bit, since a processor guesses half of them wrong. */
    static const uint32_t places[16] = {
        0, 0,     1,     0x0100,   0x02,   0x0200,   0x0201,   0x020100,
        3, 0x300, 0x301, 0x030100, 0x0302, 0x030200, 0x030201, 0x03020100,
    };
    static const uint8_t counts[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
    int32_t count = 0;
    for (int32_t first = 0; first < SPAN && first < limit; first += WINDOW) {
        const int32_t left = limit - first;
        uint32_t rest = next_bits(bits, left < WINDOW ? left : WINDOW);
        uint32_t from = (uint32_t)first * 0x01010101u;
        for (; rest; rest >>= 4) {
            const uint32_t four = places[rest & 15] + from;
            list[count] = (uint8_t)four;
            list[count + 1] = (uint8_t)(four >> 8);
            list[count + 2] = (uint8_t)(four >> 16);
            list[count + 3] = (uint8_t)(four >> 24);
            count += counts[rest & 15];
            from += 0x04040404u;
        }
    }
    return count;
}
