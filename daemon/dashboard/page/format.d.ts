export function bytes(count: number): string;
export function duration(ms: number | undefined | null): string;
export function addressOf(endpoint: string): string;
