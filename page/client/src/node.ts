/** The client for Node: the same, over sockets of its own. Node has a WebSocket from 22 on, which tells of no refused handshake why. */

import { useSockets } from "./client.js";
import { NodeSocket } from "./node_socket.js";

useSockets((url) => new NodeSocket(url));

export * from "./index.js";
