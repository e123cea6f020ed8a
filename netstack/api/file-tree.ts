/** Small trees of files that are made as they are read, for whatever protocol serves them. */
import { DrydockError } from '#common/errors';

/** An open file. */
export interface OpenFile {
  /** All that it holds now. */
  read(): Promise<Uint8Array>;
  /** Takes one write as a whole. @throws DrydockError ERR_FILE_* */
  write?(data: Uint8Array): Promise<void>;
  /** The last that is heard of it, also when its reader is gone. */
  close?(): Promise<void>;
}

export interface TreeFile {
  readonly kind: 'file';
  readonly name: string;
  readonly isWritable: boolean;
  open(): OpenFile;
  remove?(): Promise<void>;
}

export interface TreeFolder {
  readonly kind: 'folder';
  readonly name: string;
  entries(): TreeNode[];
  /** Makes a folder in it. @throws DrydockError ERR_FILE_* */
  makeFolder?(name: string): TreeFolder;
  remove?(): Promise<void>;
}

export type TreeNode = TreeFile | TreeFolder;

/** Trouble that the protocol's client is told in these words, which are Plan 9's. */
export function fileError(words: string): DrydockError {
  return new DrydockError('ERR_FILE_REFUSED', words);
}

/** A file that is read only. */
export function readOnly(name: string, read: () => Promise<Uint8Array | string>): TreeFile {
  const open = (): OpenFile => ({
    read: async () => {
      const content = await read();
      return typeof content === 'string' ? Buffer.from(content) : content;
    },
  });
  return { kind: 'file', name, isWritable: false, open };
}

/** A folder with what is in it. */
export function folder(name: string, ...entries: TreeNode[]): TreeFolder {
  return { kind: 'folder', name, entries: () => entries };
}
