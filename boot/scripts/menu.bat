@echo off
rem ImageInvoker: the deployment menu. Windows PE calls this file as X:\startup\menu.bat.
rem To change something for this image alone, add it at the end of the last line:
rem /t 0 waits for ever, /t 30 for 30 seconds.
setlocal
rem [settings]
"%SystemDrive%\ImageInvoker\python.exe" -m cli client %*
