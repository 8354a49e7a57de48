// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// A socket's addresses, in an event's detail: family, ports in host order, addresses as they stand in the socket.
#ifndef DETAIL_BYTES
#define DETAIL_BYTES 40
#endif
#include "event.h"
#include "addresses.h"

enum { ESTABLISHED = 1, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN,
       CLOSING, NEW_SYN_RECV };
